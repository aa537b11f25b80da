"""The study of a cluster of one's own over two fabrics."""
