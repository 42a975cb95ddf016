"""From labelled images to batches, the same in every run and on every strategy.

Five rooms, each with one question:

* `sources`: which examples are there? A `Source` gives random access to them, sorted by a stable key.
* `splits`: which of them train, validate and test? A pure function of the key.
* `order`: which example stands where? A pure function of the seed and the position.
* `pipeline`: in which shape do they reach a replica?
* `model_input`: what does a model take? Shared with the exported model. `images` and `augment` make pixels of bytes,
  `texts` leaves them as they are.

In use, for one process with all replicas:

    source = open_source(config)
    splits = split_examples(source.keys, source.labels, source.class_names, config.splits)
    share = Share(global_batch=config.batch_size, replicas=8, first_replica=0, local_replicas=8)
    steps = training_steps(len(splits.train), config.batch_size, config.epochs)
    image_input = ImageInput(224, "crop")
    training = training_batches(source, splits.train, config, image_input, share, first_step=0, last_step=steps)
    validation = evaluation_batches(source, splits.validation, image_input, share)

A Source holds no TensorFlow objects: everything that does is made when a dataset is.
"""
