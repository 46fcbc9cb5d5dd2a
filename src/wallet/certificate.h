/*
 * certificate.h
 *	  What our own certificate says of itself.
 */
#ifndef SETTLEMENT_WALLET_CERTIFICATE_H
#define SETTLEMENT_WALLET_CERTIFICATE_H

#include <stdint.h>

/*
 * When the first certificate of a PEM file ends, as Unix time; 0 when there is
 * none that can be read.
 */
extern int64_t certificate_until(const char *path);

#endif
