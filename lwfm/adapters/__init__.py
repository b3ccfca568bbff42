"""Semantic-pixel matching behind other libraries' interfaces, one module for each library.

* :mod:`lwfm.adapters.easyfsl` -- a ``FewShotClassifier`` for easyfsl's samplers and evaluation;
* :mod:`lwfm.adapters.metric_learning` -- a distance and a ``knn_func`` for pytorch-metric-learning;
* :mod:`lwfm.adapters.libfewshot` -- a ``MetricModel`` for LibFewShot;
* :mod:`lwfm.adapters.published` -- the matcher of the published code, under its own names.

Each module imports its library: ``pip install 'lwfm[adapters]'``.
"""
