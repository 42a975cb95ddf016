"""What a report is kept under: all that it comes from, so that the second time nothing need be traced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.config import Config
from trainer.features.recipe import module_digest
from trainer.model.handles import resolve
from trainer.preflight.cache import code_digest, key_of
from trainer.preparation import Prepared


def report_key(config: Config, prepared: Prepared, asked: Mapping[str, Any]) -> str:
    """A key for the `Cache`; "" where what the programs come from is not known.

    Args:
      config: the run.
      prepared: its examples.
      asked: what else the report depends on, in JSON: the accelerator, and how it is looked at.
    """
    if config.init_from:
        return ""
    module = config.backbone
    if config.uses_hub_module:
        module = module_digest(resolve(module, mirror=config.hub_mirror, repair=config.repair_hub_cache))
    weights = prepared.class_weights
    return key_of(
        {
            "config": config.model_dump(mode="json") | {"run_dir": ""},
            "module": module,
            "classes": len(prepared.source.class_names),
            "class_weights": None if weights is None else weights.tolist(),
            "native_size": prepared.source.native_size,
            "examples": [len(prepared.train), len(prepared.splits.validation), len(prepared.splits.test)],
            "code": code_digest(),
            **asked,
        }
    )
