# what is built from daemon/source
