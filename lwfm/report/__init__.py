"""The report of an evaluation, one self-contained HTML page: ``lwfm report``.

* :mod:`lwfm.report.page` -- the page and its template;
* :mod:`lwfm.report.charts` -- its figures;
* :mod:`lwfm.report.episodes` -- the hardest episodes, recomputed from the data and the model.
"""
