"""Hypergraph partitioning of co-activated experts (Mt-KaHyPar)."""
