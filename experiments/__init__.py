"""One file a recipe. Each runs with one command; its docstring says what to expect."""
