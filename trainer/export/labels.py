"""The file of class names in an export: always assets/labels.txt, whatever a module calls its own files."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

LABELS = "labels.txt"


def name_labels(path: str, attribute: str) -> None:
    """Gives the class names their file name, where TensorFlow (2.21) gave it to a file of the module.

    Of two assets with one name TensorFlow calls the second "labels.txt_1", and which is the second cannot be told.

    Args:
      path: folder of a SavedModel that was just written.
      attribute: of the saved object, the asset that holds the class names.
    """
    file = f"{path}/saved_model.pb"
    with tf.io.gfile.GFile(file, "rb") as read:
        saved = saved_model_pb2.SavedModel.FromString(read.read())
    (meta_graph,) = saved.meta_graphs
    nodes = meta_graph.object_graph_def.nodes
    (node,) = [child.node_id for child in nodes[0].children if child.local_name == attribute]
    ours = meta_graph.asset_file_def[nodes[node].asset.asset_file_def_index]
    if ours.filename == LABELS:
        return
    (other,) = [asset for asset in meta_graph.asset_file_def if asset.filename == LABELS]
    assets = f"{path}/assets"
    for source, target in ((LABELS, "exchanged"), (ours.filename, LABELS), ("exchanged", ours.filename)):
        tf.io.gfile.rename(f"{assets}/{source}", f"{assets}/{target}")
    ours.filename, other.filename = other.filename, ours.filename
    with tf.io.gfile.GFile(file, "wb") as written:
        written.write(saved.SerializeToString())
