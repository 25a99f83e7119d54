# what is built from docs
