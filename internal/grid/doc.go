// Package grid reads the grid price from where an operator puts it: how dear
// electricity is now, as a multiple of the reference.
//
// The source is a file of one number, "1.5x" or "1.5", that something else writes
// (a cron job, a script that asks the supplier). It is input of strangers: read at
// most MaxFile bytes, from a regular file that only root can write, without ever
// waiting for a writer. What a factor does to prices, and within which bounds and how
// fast, is for package price to say; how long a factor is believed is told here, by
// Until.
package grid
