// Command nats stands in for the NATS CLI, which is not needed to build or test Quorate: the two commands that the README shows, by
// the same protocol.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	conn, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		return err
	}
	defer conn.Close()
	switch {
	case len(args) == 3 && args[0] == "req":
		reply, err := conn.Request(args[1], []byte(args[2]), 5*time.Second)
		if err != nil {
			return err
		}
		if text := reply.Header.Get(micro.ErrorHeader); text != "" {
			return fmt.Errorf("%s (%s)", text, reply.Header.Get(micro.ErrorCodeHeader))
		}
		for key, values := range reply.Header {
			fmt.Println(key+":", values[0])
		}
		fmt.Println(string(reply.Data))
		return nil
	case len(args) == 2 && args[0] == "micro" && args[1] == "ls":
		reply, err := conn.Request("$SRV.PING", nil, 5*time.Second)
		if err != nil {
			return err
		}
		var ping micro.Ping
		if err := json.Unmarshal(reply.Data, &ping); err != nil {
			return err
		}
		fmt.Println(ping.Name, ping.Version)
		return nil
	}
	return fmt.Errorf("%q is not known here", args)
}
