"""Weights from elsewhere: what can be imported, files of other libraries, and which array of them goes where."""
