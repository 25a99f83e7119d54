/* Where a daemon is: what the uri of dmab_connect() means. */
#ifndef DMAB_CLIENT_ADDRESS_H
#define DMAB_CLIENT_ADDRESS_H

/* The socket's path, in a string of the caller's. -EINVAL, -EOPNOTSUPP, -ENAMETOOLONG or -ENOMEM and a sentence. */
int address_parse(const char *uri, char **ret_path);

#endif
