"""What turns images or texts into logits: a backbone, which gives each a feature vector, and a head on top of it.

    handle      "https://tfhub.dev/…", "gs://…", a folder          handles.resolve
      -> folder that holds a complete SavedModel                   hub.load_module
      -> HubModule: a plain function, and the variables behind it  backbone.HubBackbone
      -> Backbone: a Keras 3 layer that owns these variables       classifier.Classifier

`convnet.ConvNet` is the backbone that needs no download. `backbone.build_backbone` picks one of the two for a Config.
Everything that makes variables is called inside `strategy.scope()`.
"""
