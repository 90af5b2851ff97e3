package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/ctigate/ctigate/core"
)

// Options are what New needs.
type Options struct {
	Version string // the gateway's
	OTLP    OTLP
	Log     *slog.Logger // told of failing exports, for the whole process; nil: OpenTelemetry writes to stderr

	readers []sdkmetric.Option              // tests
	spans   []sdktrace.TracerProviderOption // tests
}

// OTLP says where metrics and traces are exported, over OTLP/HTTP (protobuf). Without an endpoint nothing is.
type OTLP struct {
	Endpoint string                 `yaml:"endpoint"` // https://collector:4318; /v1/metrics and /v1/traces are added
	Headers  map[string]core.Secret `yaml:"headers"`  // an API key, say
	Interval time.Duration          `yaml:"interval"` // between metric exports; default 15 s
	Metrics  *bool                  `yaml:"metrics"`  // default true
	Traces   *bool                  `yaml:"traces"`   // default true
}

// Validate returns every fault, each naming the field.
func (o OTLP) Validate() []error {
	if o.Endpoint == "" {
		return nil
	}
	var errs []error
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, fmt.Errorf("endpoint: %q is not an http or https URL such as https://collector:4318", o.Endpoint))
	}
	if o.Interval < 0 {
		errs = append(errs, fmt.Errorf("interval: %s is negative: use a positive duration such as 15s", o.Interval))
	}
	return errs
}

func (o OTLP) on(which *bool) bool { return o.Endpoint != "" && (which == nil || *which) }

func (o OTLP) headers() (map[string]string, error) {
	m := make(map[string]string, len(o.Headers))
	for name, secret := range o.Headers {
		v, err := secret.Reveal()
		if err != nil {
			return nil, fmt.Errorf("otlp header %s: %w", name, err)
		}
		m[name] = v
	}
	return m, nil
}

func (o OTLP) metricOptions(ctx context.Context, opts []sdkmetric.Option) ([]sdkmetric.Option, error) {
	if !o.on(o.Metrics) {
		return opts, nil
	}
	h, err := o.headers()
	if err != nil {
		return nil, err
	}
	exp, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(o.join("v1/metrics")), otlpmetrichttp.WithHeaders(h))
	if err != nil {
		return nil, fmt.Errorf("making the OTLP metric exporter: %w", err)
	}
	interval := o.Interval
	if interval == 0 {
		interval = 15 * time.Second
	}
	return append(opts, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exp,
		sdkmetric.WithInterval(interval), sdkmetric.WithTimeout(exportTimeout)))), nil
}

func (o OTLP) traceOptions(ctx context.Context) ([]sdktrace.TracerProviderOption, error) {
	if !o.on(o.Traces) {
		return nil, nil
	}
	h, err := o.headers()
	if err != nil {
		return nil, err
	}
	exp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(o.join("v1/traces")), otlptracehttp.WithHeaders(h))
	if err != nil {
		return nil, fmt.Errorf("making the OTLP trace exporter: %w", err)
	}
	// The queue is bounded and never blocks the caller.
	return []sdktrace.TracerProviderOption{sdktrace.WithBatcher(exp, sdktrace.WithExportTimeout(exportTimeout))}, nil
}

func (o OTLP) join(path string) string {
	s, err := url.JoinPath(o.Endpoint, path)
	if err != nil {
		return o.Endpoint
	}
	return s
}
