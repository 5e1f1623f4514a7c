"""From a query to its neighbours: the gallery, the query engine and the steps of a search."""
