"""How engines are launched as a plan says: commands, environment, manifests, and the words that go with them."""
