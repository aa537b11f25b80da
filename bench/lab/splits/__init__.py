"""The study of splits: what each part of a step takes under the chosen one and its neighbours."""
