"""HTTP: routes, request bodies, answers, and what is refused before them."""
