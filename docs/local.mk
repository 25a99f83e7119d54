# what is built from docs
EXTRA_DIST += docs/architecture.md
