"""Which APIs a project has enabled, and its quotas, as Service Usage tells them (v1 and, for quotas, v1beta1).

As documented at cloud.google.com/service-usage/docs/reference/rest, 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from fakes.rest import GoogleError, Route, page, routed
from fakes.server import Answer, Request

LARGEST_BATCH = 30


class ServiceUsageApi:
    """The service.

    Attributes:
      disabled: hosts of APIs that are not enabled, such as "tpu.googleapis.com"; all others are.
    """

    def __init__(self) -> None:
        self.disabled: set[str] = set()
        self._quotas: dict[str, dict[str, dict[str, int]]] = {}

    def set_quota(self, service: str, metric: str, region: str, limit: int) -> None:
        """Sets how much of something a project may use.

        Args:
          service: the API's host, such as "aiplatform.googleapis.com".
          metric: such as "aiplatform.googleapis.com/custom_model_training_nvidia_l4_gpus".
          region: where; "" for all that have no limit of their own.
          limit: -1 for none.
        """
        self._quotas.setdefault(service, {}).setdefault(metric, {})[region] = limit

    def answer(self, request: Request, path: str) -> Answer:
        """Carries out a request; `path` is this API's own, from the version on."""
        service = r"(projects/[^/]+)/services/([a-z0-9.-]+)"
        metrics = rf"/v1beta1/{service}/consumerQuotaMetrics"
        routes = (
            Route("GET", r"/v1/(projects/[^/]+)/services:batchGet", self._batch_get, ("names",)),
            Route("GET", rf"/v1/{service}", self._get),
            Route("GET", metrics, self._list_metrics, ("pageSize", "pageToken", "view")),
            Route("GET", rf"{metrics}/([^/]+)", self._get_metric, ("view",)),
        )
        return routed(request, path, routes)

    def _batch_get(self, request: Request, parent: str) -> dict[str, Any]:
        names = request.queries.get("names", [])
        if not 1 <= len(names) <= LARGEST_BATCH:
            raise GoogleError(400, f"names: there must be 1 to {LARGEST_BATCH} of them")
        for name in names:
            if not re.fullmatch(rf"{re.escape(parent)}/services/[a-z0-9.-]+\.googleapis\.com", name):
                raise GoogleError(400, f"names: {name} is no service of {parent}")
        return {"services": [self._service(parent, name.rpartition("/")[2]) for name in names]}

    def _get(self, _: Request, parent: str, host: str) -> dict[str, Any]:
        return self._service(parent, host)

    def _service(self, parent: str, host: str) -> dict[str, Any]:
        state = "DISABLED" if host in self.disabled else "ENABLED"
        return {"name": f"{parent}/services/{host}", "parent": parent, "config": {"name": host}, "state": state}

    def _list_metrics(self, request: Request, parent: str, service: str) -> dict[str, Any]:
        known = self._quotas.get(service, {})
        return page(request, [_metric(parent, service, metric, limits) for metric, limits in known.items()], "metrics")

    def _get_metric(self, _: Request, parent: str, service: str, metric: str) -> dict[str, Any]:
        limits = self._quotas.get(service, {}).get(unquote(metric))
        if limits is None:
            raise GoogleError(404, f"Quota metric {unquote(metric)} was not found.")
        return _metric(parent, service, unquote(metric), limits)


def _metric(parent: str, service: str, metric: str, limits: Mapping[str, int]) -> dict[str, Any]:
    """A quota metric in the API's form, with its general bucket first."""
    name = f"{parent}/services/{service}/consumerQuotaMetrics/{quote(metric, safe='')}"
    buckets = [
        {
            "effectiveLimit": str(limit),
            "defaultLimit": str(limit),
            **({"dimensions": {"region": region}} if region else {}),
        }
        for region, limit in sorted(limits.items())
    ]
    unit = "1/{project}/{region}"
    limit = {"name": f"{name}/limits/%2Fproject%2Fregion", "unit": unit, "metric": metric, "quotaBuckets": buckets}
    return {"name": name, "metric": metric, "displayName": metric, "consumerQuotaLimits": [limit], "unit": "1"}
