"""What every stage needs: errors, files, arrays on disk, parameters, hashes and what dvc.lock says."""
