"""Kinds of concepts: networks that read values from embeddings, and priors of embeddings given values."""
