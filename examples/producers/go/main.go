// Publishes lines of JSON to Kafka, each checked by the topic's JSON Schema, as `weir publish` would.
//
//	go run . -brokers 127.0.0.1:9092 -topic order-events -schema ../../../schemas/order-events.json -key-field /order_id events.ndjson
//
// The exit code is 1 when a line was bad or not delivered; the others are sent.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	lineBytesMax    = 1 << 20
	deliveryTimeout = 60 * time.Second
)

func main() {
	brokers := flag.String("brokers", "", "addresses, separated by commas")
	topic := flag.String("topic", "", "the topic")
	schemaFile := flag.String("schema", "", "the topic's JSON Schema")
	keyField := flag.String("key-field", "", "JSON pointer to the key; without it, the chat conversation")
	flag.Parse()
	bad, err := run(*brokers, *topic, *schemaFile, *keyField, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	if err != nil || bad > 0 {
		os.Exit(1)
	}
}

func run(brokers, topic, schemaFile, keyField string, files []string) (int64, error) {
	schema, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		return 0, err
	}
	// The client's defaults are what is wanted: a broker's word for each event and none twice, and the partitions that Java's
	// client and weir choose for a key.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.DefaultProduceTopic(topic),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
	)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	producer := &producer{client: client, schema: schema, keyField: keyField}
	if len(files) == 0 {
		err = producer.publish("-", os.Stdin)
	}
	for _, name := range files {
		if err != nil {
			break
		}
		var file *os.File
		if file, err = os.Open(name); err == nil {
			err = producer.publish(name, file)
			file.Close()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout+5*time.Second)
	defer cancel()
	if flushed := client.Flush(ctx); err == nil {
		err = flushed
	}
	return producer.bad.Load(), err
}

type producer struct {
	client   *kgo.Client
	schema   *jsonschema.Schema
	keyField string
	bad      atomic.Int64
}

func (p *producer) publish(name string, file io.Reader) error {
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, lineBytesMax)
	for number := 1; lines.Scan(); number++ {
		line := bytes.Clone(bytes.TrimRight(lines.Bytes(), "\r"))
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		event, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err == nil {
			err = p.schema.Validate(event)
		}
		if err != nil {
			p.bad.Add(1)
			fmt.Fprintf(os.Stderr, "%s:%d: %v\n", name, number, err)
			continue
		}
		// Waits while the client's buffer is full.
		p.client.Produce(context.Background(), &kgo.Record{Key: keyOf(event, p.keyField), Value: line}, func(_ *kgo.Record, err error) {
			if err != nil {
				p.bad.Add(1)
				fmt.Fprintln(os.Stderr, "not delivered:", err)
			}
		})
	}
	return lines.Err()
}

func keyOf(event any, pointer string) []byte {
	if pointer == "" {
		return conversation(event)
	}
	for _, name := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		event = field(event, strings.NewReplacer("~1", "/", "~0", "~").Replace(name))
	}
	return bytesOf(text(event))
}

// The chat conversation: the group, else both users, sorted as bytes and joined by ':'.
func conversation(event any) []byte {
	message := field(event, "message")
	if group := text(field(message, "group_id")); group != nil && *group != "" {
		return []byte(*group)
	}
	from, to := text(field(message, "from")), text(field(message, "to"))
	if from == nil || to == nil {
		return nil
	}
	return []byte(min(*from, *to) + ":" + max(*from, *to))
}

func field(value any, name string) any {
	object, _ := value.(map[string]any)
	return object[name]
}

// A string as it is, a whole number as its digits; nothing else is an identifier.
func text(value any) *string {
	switch value := value.(type) {
	case string:
		return &value
	case json.Number:
		digits := value.String()
		if !strings.ContainsAny(digits, ".eE") {
			return &digits
		}
	}
	return nil
}

func bytesOf(text *string) []byte {
	if text == nil {
		return nil
	}
	return []byte(*text)
}
