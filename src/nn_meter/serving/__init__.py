"""``nn-meter serve``: predictions over HTTP, for a team: a page to drop models on, a JSON API, a history.

A model is predicted in a process of its own, so that a hostile one takes down one request (``tasks``, ``pool``).
"""
