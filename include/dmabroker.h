#ifndef DMABROKER_H
#define DMABROKER_H
#endif
