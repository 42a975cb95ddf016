"""Compiles HLO for a TPU slice that is not there: what runs in a process of its own, with jax and libtpu.

    python -m trainer.preflight.compiler_process REQUEST RESULTS

REQUEST is a JSON file, see `trainer.preflight.compiler`; RESULTS gets a JSON object a line: first the versions, then
what became of each program, so that who waits keeps what was found before a time limit. It imports nothing else of this
package, so that any Python with jax and libtpu can run it.

jax compiles for named slices without hardware; that it takes HLO of another program, and not only its own, is no public
interface. So the versions are pinned, and another one is refused before anything is tried.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # Another process of this machine may have it loaded.
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # Any will do: without one libtpu asks a metadata server for it.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
"""What keeps libtpu from looking for chips (0.0.51, 2026-11)."""

_OTHERS_SETTINGS = ("JAX_", "LIBTPU_", "TPU_", "XLA_")
"""Beginnings of variables that would change what is compiled, or whether libtpu is loaded at all."""


def main(request_path: str, results_path: str) -> int:
    """Does what a request says; gives 0 whatever came of it, as long as it could be written down."""
    end_with_parent(seconds=1.0)
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    with open(results_path, "w", encoding="utf-8") as results:

        def write(entry: Mapping[str, Any]) -> None:
            results.write(json.dumps(entry) + "\n")
            results.flush()

        versions = {name: _version(name) for name in request["versions"]}
        write({"versions": versions})
        if versions != request["versions"]:
            return 0
        for name in [name for name in os.environ if name.startswith(_OTHERS_SETTINGS)]:
            del os.environ[name]
        os.environ.update(ENVIRONMENT)
        for program in request["programs"]:
            write({"name": program["name"], **_compiled(program["hlo"], request)})
    return 0


def end_with_parent(seconds: float) -> None:
    """Sees to it that this process does not outlive the one that waits for it, however that one ends.

    Args:
      seconds: between two looks.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _compiled(hlo_path: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Compiles one program; what it takes, or the compiler's words against it."""
    from jax.errors import JaxRuntimeError

    with open(hlo_path, "rb") as file:
        hlo = file.read()
    began = time.monotonic()
    try:
        executable = _compile(hlo, request)
    except JaxRuntimeError as error:
        return {"error": str(error), "seconds": time.monotonic() - began}
    seconds = time.monotonic() - began
    memory, costs = executable.get_compiled_memory_stats(), executable.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    return {
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "shared": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        },
        # What a program has nothing of is not listed.
        "flops": costs.get("flops", 0.0),
        "bytes_accessed": costs.get("bytes accessed", 0.0),
        "seconds": seconds,
    }


def _compile(hlo: bytes, request: Mapping[str, Any]) -> Any:
    import numpy as np
    from jax._src.interpreters import mlir
    from jax._src.lib import _jax, xla_client
    from jax.experimental import topologies
    from jaxlib.mlir import ir

    replicas = request["replicas"]
    described = topologies.get_topology_desc(
        platform="tpu", topology_name=request["topology"], **{k: _value(v) for k, v in request["options"].items()}
    )
    devices = described.devices[:replicas]
    if len(described.devices) != replicas:
        raise ValueError(f"{request['topology']} has {len(described.devices)} devices, and not {replicas}")
    options = xla_client.CompileOptions()
    for part in (options, options.executable_build_options):
        part.num_replicas, part.num_partitions = replicas, 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id] for device in devices]))
    with mlir.make_ir_context():
        module = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(hlo))
        _replace(module, request["exchange_mark"], replicas)
        return devices[0].client.compile(module, xla_client.DeviceList(tuple(devices)), options)


def _value(value: Any) -> Any:
    """jax takes tuples where JSON has lists."""
    return tuple(value) if isinstance(value, list) else value


def _replace(module: Any, exchange_mark: str, replicas: int) -> None:
    """Puts operations in place that tf2xla has another form for: copies by nothing, marked exchanges by real ones."""
    for operation in list(_operations(module.operation)):
        if operation.name == "mhlo.copy":  # jaxlib 0.10.2 makes it of HLO's "copy", and does not take it back.
            operation.results[0].replace_all_uses_with(operation.operands[0])
            operation.erase()
        elif operation.name == "stablehlo.custom_call" and exchange_mark in str(
            operation.attributes["call_target_name"]
        ):
            _exchange(operation, replicas)


def _exchange(operation: Any, replicas: int) -> None:
    import numpy as np
    from jaxlib.mlir import ir

    sizes = json.loads(ir.StringAttr(operation.attributes["backend_config"]).value)
    number = ir.IntegerType.get_signless(64)
    attributes = {name: ir.IntegerAttr.get(number, sizes[name]) for name in sizes}
    groups = ir.DenseIntElementsAttr.get(np.arange(replicas, dtype=np.int64)[np.newaxis])
    with ir.InsertionPoint(operation), ir.Location.unknown():
        real = ir.Operation.create(
            "stablehlo.all_to_all",
            results=[result.type for result in operation.results],
            operands=list(operation.operands),
            attributes={**attributes, "replica_groups": groups},
        )
    for old, new in zip(operation.results, real.results):
        old.replace_all_uses_with(new)
    operation.erase()


def _operations(operation: Any) -> Iterator[Any]:
    for region in operation.regions:
        for block in region.blocks:
            for inner in list(block.operations):
                yield from _operations(inner.operation)
                yield inner.operation


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
