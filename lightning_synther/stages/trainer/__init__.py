"""The Trainer calls of the stages: what every Trainer gets, how a call resumes and ends, and its checkpoints."""
