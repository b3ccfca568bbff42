"""Semantic-pixel matching in the shapes that other libraries expect, one module for each of them.

* :mod:`lwfm.adapters.easyfsl` -- a ``FewShotClassifier`` for easyfsl's samplers and evaluation;
* :mod:`lwfm.adapters.metric_learning` -- a distance and a ``knn_func`` for pytorch-metric-learning;
* :mod:`lwfm.adapters.libfewshot` -- a ``MetricModel`` for LibFewShot;
* :mod:`lwfm.adapters.published` -- the matcher of the published code, under its own names.

Each imports its library when it is imported itself: ``pip install 'lwfm[adapters]'``.
"""
