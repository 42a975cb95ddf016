"""What a module's graph does when it is loaded or called: refused if it reaches for files, Python or the network.

A SavedModel is a program that TensorFlow runs with all rights of its user. To turn images or texts into features it
needs no operation that reads or writes files, calls Python, opens connections or ends the process. One is needed by
some and allowed with care: a table that is filled from a text file, if that file is an asset, which lies in the
module's own folder, and no other file that the graph names or whose name it computes. This is a check of names and no
sandbox: a graph can still take all memory, or never end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

_REACHES_OUT = re.compile(
    r"""
    ReadFile | WriteFile | MatchingFiles | ImmutableConst | DumpTensor | FileSystem\w+
    | \w*Reader(V2)? | Reader(?!s)\w+                                     # queues of TF1 that read files
    | Save\w* | DistributedSave | Restore\w* | DTensorRestore\w* | MergeV2Checkpoints
    | LoadAndRemapMatrix | GenerateVocabRemapping | CalibrationStatisticsSaver
    | \w*Dataset\w* | \w*Iterator\w*                                      # tf.data
    | Create\w*Summary\w*Writer | SummaryWriter | Write\w*Summary\w* | FlushSummaryWriter | CloseSummaryWriter
    | DebugIdentity\w* | DebugNanCount | DebugNumericSummary | Copy | CopyHost    # may write what they see
    | DecodeProtoV2 | EncodeProto                                         # read their descriptors from a file
    | \w*PyFunc\w*
    | Rpc\w+ | DeleteRpc\w+ | RemoteCall | _?(Host|Xla)?(Send|Recv)\w* | Collective\w+ | \w*Nccl\w+
    | XlaCustomCall\w* | _?XlaHostCompute\w* | \w*TPU\w* | \w*Tpu\w*
    | Abort
    """,
    re.VERBOSE,
)
"""Operations of TensorFlow 2.20 and 2.21 (2026-11), by their whole names."""

_FILLS_TABLE = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
_FILE_NAME_INPUT = 1
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_NO_ASSET = "InitializeTableFromTextFile of a file that is no asset of the module"
_RESTORES = frozenset({"Restore", "RestoreSlice", "RestoreV2"})
_OLD_ASSETS = "saved_model_assets"
_INITIALIZERS = ("saved_model_main_op", "legacy_init_op")


def refused_operation(saved_model: saved_model_pb2.SavedModel) -> str:
    """The first operation that a module must not have, as it is called; "" if there is none.

    Only what `tf.saved_model.load` and calls run counts: every SavedModel also has functions that write checkpoints,
    which nothing here ever calls.
    """
    for meta_graph in saved_model.meta_graphs:
        outside = [file.filename for file in _asset_files(meta_graph) if _leads_out(file.filename)]
        if outside:
            return f"an asset that lies elsewhere, {outside[0]}"
        # As the loader tells the formats apart.
        is_tf2 = len(saved_model.meta_graphs) == 1 and meta_graph.HasField("object_graph_def")
        refused = _Graph(meta_graph).refused_in_functions() if is_tf2 else _Graph(meta_graph).refused_in_session()
        if refused:
            return refused
    return ""


class _RefusedError(Exception):
    """Carries the operation out of the walk."""


@dataclass
class _Graph:
    """A walk through the functions of a module, each once.

    Attributes:
      meta_graph: of the module.
      functions: its library, by name.
      file_arguments: of the functions that were walked through, which arguments become names of files.
    """

    meta_graph: meta_graph_pb2.MetaGraphDef
    functions: dict[str, Any] = field(init=False)
    file_arguments: dict[str, frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.functions = {f.signature.name: f for f in self.meta_graph.graph_def.library.function}

    def refused_in_functions(self) -> str:
        """Of a TF2 module: what the functions of its objects reach."""
        library = self.meta_graph.graph_def.library
        roots = [*self.meta_graph.object_graph_def.concrete_functions]
        roots += [gradient.gradient_func for gradient in library.gradient]
        roots += [gradient.gradient_func for gradient in library.registered_gradients]

        def walk() -> None:
            for name in roots:
                if name in self.functions:
                    self._check_root(name)

        return self._refused(walk)

    def refused_in_session(self) -> str:
        """Of a TF1 module: what its signatures, its initialisation and its restoration reach."""
        graph = self.meta_graph
        tensors = [info for signature in graph.signature_def.values() for info in signature.outputs.values()]
        called = [info.name for info in tensors]
        called += [part.name for info in tensors for part in info.composite_tensor.components]
        called += [n for info in tensors for n in _sparse_names(info.coo_sparse)]
        for collection in _INITIALIZERS:
            called += graph.collection_def[collection].node_list.value if collection in graph.collection_def else []
        restored = [graph.saver_def.restore_op_name] if graph.HasField("saver_def") else []
        assets = frozenset(file.tensor_info.name.split(":")[0] for file in _asset_files(graph))

        def walk() -> None:
            nodes = {node.name: node for node in graph.graph_def.node}
            self._check_nodes(_upstream(nodes, called), nodes, {}, assets=assets)
            self._check_nodes(_upstream(nodes, restored), nodes, {}, allowed=_RESTORES, assets=assets)

        return self._refused(walk)

    def _refused(self, walk: Callable[[], object]) -> str:
        try:
            walk()
        except _RefusedError as error:
            return str(error)
        except RecursionError:
            return "a chain of functions without end"
        return ""

    def _check_root(self, name: str) -> None:
        """Checks a function that the loader binds: what it takes for names of files must be bound to assets."""
        files = self._walk(name)
        objects = self.meta_graph.object_graph_def
        bound = objects.concrete_functions[name].bound_inputs if name in objects.concrete_functions else ()
        # What is bound comes last.
        first_bound = len(self.functions[name].signature.input_arg) - len(bound)
        for place in files:
            node = bound[place - first_bound] if place >= first_bound else -1
            if not 0 <= node < len(objects.nodes) or objects.nodes[node].WhichOneof("kind") != "asset":
                raise _RefusedError(_NO_ASSET)

    def _walk(self, name: str) -> frozenset[int]:
        """Checks a function; gives the places of the arguments that become names of files."""
        if name not in self.file_arguments:
            self.file_arguments[name] = frozenset()  # For functions that call themselves.
            function = self.functions[name]
            for called in _function_names(function.attr.values(), self.functions):
                self._walk(called)
            arguments = {argument.name: place for place, argument in enumerate(function.signature.input_arg)}
            nodes = {node.name: node for node in function.node_def}
            self.file_arguments[name] = self._check_nodes(function.node_def, nodes, arguments)
        return self.file_arguments[name]

    def _check_nodes(
        self,
        checked: Iterable[Any],
        nodes: Mapping[str, Any],
        arguments: Mapping[str, int],
        *,
        allowed: frozenset[str] = frozenset(),
        assets: frozenset[str] = frozenset(),
    ) -> frozenset[int]:
        """Checks operations and what they call; gives the arguments that become names of files."""
        found: set[int] = set()
        for node in checked:
            if node.op not in allowed and _reaches_out(node):
                raise _RefusedError(node.op)
            names = {_FILE_NAME_INPUT} if node.op in _FILLS_TABLE else set[int]()
            for called in _function_names(node.attr.values(), self.functions, node.op):
                of_called = self._walk(called)
                if of_called and node.op not in _CALLS and node.op != called:
                    raise _RefusedError(f"{node.op} around a table that is filled from a file")
                names |= of_called
            inputs = [name for name in node.input if not name.startswith("^")]
            for place in names:
                found |= _origin(inputs[place] if place < len(inputs) else "", nodes, arguments, assets)
        return frozenset(found)


def _asset_files(meta_graph: meta_graph_pb2.MetaGraphDef) -> list[meta_graph_pb2.AssetFileDef]:
    """The files that come with a module, and for TF1 the tensors that hold their names; as the loader finds them."""
    if meta_graph.asset_file_def or _OLD_ASSETS not in meta_graph.collection_def:
        return list(meta_graph.asset_file_def)
    files = []
    for packed in meta_graph.collection_def[_OLD_ASSETS].any_list.value:
        file = meta_graph_pb2.AssetFileDef()
        packed.Unpack(file)
        files.append(file)
    return files


def _leads_out(filename: str) -> bool:
    """Whether a name inside a folder means a file elsewhere."""
    return filename.startswith("/") or ".." in filename.split("/")


def _origin(name: str, nodes: Mapping[str, Any], arguments: Mapping[str, int], assets: frozenset[str]) -> set[int]:
    """The argument that a name of a file comes from; none where it is that of an asset.

    Raises:
      _RefusedError: the graph itself names the file.
    """
    for _ in range(len(nodes) + 1):
        source = name.split(":")[0]
        if source in arguments:
            return {arguments[source]}
        if source in assets:
            return set()
        node = nodes.get(source)
        if node is None or node.op != "Identity" or not node.input:
            break
        name = node.input[0]
    raise _RefusedError(_NO_ASSET)


def _reaches_out(node: Any) -> bool:
    if node.op == "PrintV2":
        return bool(node.attr["output_stream"].s.startswith(b"file:"))
    return bool(_REACHES_OUT.fullmatch(node.op))


def _function_names(
    attributes: Iterable[attr_value_pb2.AttrValue], functions: Mapping[str, Any], operation: str = ""
) -> Iterator[str]:
    """The functions of the library that an operation names, one way or another."""
    if operation in functions:
        yield operation
    for value in attributes:
        names = [value.func.name, *(called.name for called in value.list.func)]
        # Of gradients and the like, which are named in plain text.
        names += [value.s.decode("utf-8", "replace")] if value.s else []
        yield from (name for name in names if name in functions)


def _upstream(nodes: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
    """The nodes of a session's graph that run when some are asked for."""
    found: dict[str, Any] = {}
    waiting = [name.lstrip("^").split(":")[0] for name in names]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in found:
            found[name] = nodes[name]
            waiting += [source.lstrip("^").split(":")[0] for source in nodes[name].input]
    return list(found.values())


def _sparse_names(sparse: Any) -> list[str]:
    return [sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
