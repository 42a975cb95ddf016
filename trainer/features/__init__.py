"""Frozen means once: the features of a frozen backbone, computed once and kept for every later run.

* `recipe`: what the features depend on besides the example: the module, preprocessing, view. Names a folder.
* `content_ids`: which example is it? A hash of its bytes, so that a changed one is new.
* `shards` and `cache`: example id -> feature vector, in files that are named by their own checksum.
* `extractors`: the fastest way from pixels or texts to features on the devices at hand.
* `fill`: computes what the cache lacks, alone or beside other runs.
* `table`: the features of a run's images, in memory or on disk, for the input pipeline.
* `once`: decides whether any of this applies, and does it.
"""
