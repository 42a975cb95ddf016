"""Frozen means once: the features of a frozen backbone, computed once and kept for every later run.

* `recipe`: what the features depend on besides the image: the module's content, preprocessing, view. It names a folder.
* `content_ids`: which image is it? A hash of its bytes, so that a changed image is a new one.
* `shards` and `cache`: image id -> feature vector, in files that are named by their own checksum.
* `extractors`: the fastest way from pixels to features on the devices at hand.
* `fill`: computes what the cache lacks, alone or beside other runs.
* `table`: the features of a run's images, in memory or on disk, for the input pipeline.
* `once`: decides whether any of this applies, and does it.
"""
