"""A local server for trained models: an HTTP API, a page to play with a model, a page to watch a run.

:mod:`.queue` gathers the texts of waiting requests into batches, :mod:`.work` says how many tokens a text costs and
which method of the library answers it, :mod:`.models` finds and loads the models. :mod:`.schemas` and :mod:`.api` are
the HTTP API, :mod:`.play` and :mod:`.watch` the pages, :mod:`.app` puts them together.
"""
