// Command probe is what the tests run in pods: it resolves a name, or eats memory until it is stopped.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

func main() {
	switch os.Args[1] {
	case "resolve":
		limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		found, err := net.DefaultResolver.LookupHost(limit, os.Args[2])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(found[0])
	case "eat":
		wanted, _ := strconv.Atoi(os.Args[2])
		eaten := make([]byte, wanted<<20)
		for i := 0; i < len(eaten); i += 4096 {
			eaten[i] = 1
		}
		time.Sleep(time.Hour)
	}
}
