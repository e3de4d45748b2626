package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	lift "github.com/liftbridge-io/go-liftbridge/v2"
)

// secure shows a certificate, and may create, fill and read the stream "orders", and do nothing else.
func secure(address, ca, cert, key string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	authorities := x509.NewCertPool()
	pem, err := os.ReadFile(ca)
	check("read authority", err)
	expect("authority", authorities.AppendCertsFromPEM(pem))
	own, err := tls.LoadX509KeyPair(cert, key)
	check("load certificate", err)
	client, err := lift.Connect([]string{address},
		lift.TLSConfig(&tls.Config{RootCAs: authorities, Certificates: []tls.Certificate{own}}))
	check("connect", err)
	defer client.Close()

	check("create", client.CreateStream(ctx, "orders", "orders"))
	denied("create another", client.CreateStream(ctx, "bills", "bills"), "CreateStream on resource bills")
	_, err = client.Publish(ctx, "orders", []byte("0"))
	check("publish", err)
	_, err = client.Publish(ctx, "bills", []byte("0"))
	denied("publish elsewhere", err, "Publish on resource bills")

	acked := make(chan error, 1)
	check("publish async", client.PublishAsync(ctx, "orders", []byte("1"), func(_ *lift.Ack, err error) { acked <- err }))
	check("async ack", <-acked)
	check("publish async elsewhere", client.PublishAsync(ctx, "bills", []byte("1"), func(_ *lift.Ack, err error) { acked <- err }))
	denied("async ack elsewhere", <-acked, "Publish on resource bills")

	received := make(chan string, 2)
	check("subscribe", client.Subscribe(ctx, "orders", func(m *lift.Message, err error) {
		check("message", err)
		received <- string(m.Value())
	}, lift.StartAtEarliestReceived()))
	expect("messages", <-received == "0" && <-received == "1")
	fmt.Println("ok")
}

func denied(what string, err error, text string) {
	expect(what, err != nil)
	if !strings.Contains(err.Error(), "not authorized to call "+text) {
		check(what, err)
	}
}
