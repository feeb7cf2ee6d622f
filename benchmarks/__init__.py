"""One file a question. Every figure quoted anywhere comes from one of these."""
