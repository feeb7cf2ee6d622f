"""Every reader of files, fed with damaged ones: `python -m tests.fuzz`, and a few seconds of it in the suite."""
