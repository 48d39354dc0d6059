"""Published sets that change what tells the class: grounds, textures, corruptions."""
