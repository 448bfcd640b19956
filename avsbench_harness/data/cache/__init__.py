"""One array store on disk for decoded clips, log-mels, embeddings and packed solutions."""
