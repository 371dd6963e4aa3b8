// Package market is the order book of the processor: it ranks before an epoch
// and prices after it.
package market
