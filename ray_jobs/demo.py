"""The whole main job: corpus, tokenizers, tokens, vocoder, judges, model, mixture search, endpoint, report."""

import sys

from ray_jobs.demo_run import main

if __name__ == "__main__":
    sys.exit(main())
