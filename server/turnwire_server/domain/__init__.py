"""The nouns of the contract: frozen, standard library only, no input or output and no clock."""
