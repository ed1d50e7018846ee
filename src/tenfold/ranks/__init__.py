"""How ranks are chosen: candidates for every layer, what an error costs the model, and the allocation under a budget."""
