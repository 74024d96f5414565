"""Presets: folders of configs, weights and vocabularies (chapter 17, "Presets and checkpoints")."""
