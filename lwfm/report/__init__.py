"""``lwfm report``: what an evaluation found, as one HTML page that needs no network.

* :mod:`lwfm.report.page` -- the page and its template;
* :mod:`lwfm.report.charts` -- its figures;
* :mod:`lwfm.report.episodes` -- the hardest episodes, drawn again from the data and the model.
"""
