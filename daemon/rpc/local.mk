# what is built from daemon/rpc
