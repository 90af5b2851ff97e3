// Package telemetry makes the gateway observable: OpenTelemetry metrics for a Prometheus scrape and for OTLP, one trace
// per call, and an HTTP server with /metrics, /healthz and /readyz. All names live under "cti.".
//
// Hot paths touch only atomic counters (Link, Sink); instruments read them when somebody collects.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/ctigate/ctigate"

// T is the process's telemetry. A nil *T is valid everywhere and collects nothing.
type T struct {
	metrics *sdkmetric.MeterProvider
	traces  *sdktrace.TracerProvider // nil when no traces are exported
	tracer  trace.Tracer
	scrape  http.Handler

	trackerLatency, ackedLatency metric.Float64Histogram

	mu     sync.Mutex
	links  map[string]*Link
	sinks  map[string]*Sink
	gauges Gauges
}

// New makes telemetry as o says. Exporting to OTLP starts at once; Shutdown ends it.
func New(ctx context.Context, o Options) (*T, error) {
	if o.Log != nil {
		otel.SetErrorHandler(&complaints{log: o.Log, now: time.Now})
	}
	s, err := newScraper()
	if err != nil {
		return nil, err
	}
	res := resource.NewSchemaless(attribute.String("service.name", "ctigate"),
		attribute.String("service.version", o.Version))
	mopts := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(s.reader)}
	mopts, err = o.OTLP.metricOptions(ctx, mopts)
	if err != nil {
		return nil, err
	}
	t := &T{links: map[string]*Link{}, sinks: map[string]*Sink{}, scrape: s.handler,
		metrics: sdkmetric.NewMeterProvider(append(mopts, o.readers...)...)}
	if err := t.instrument(t.metrics.Meter(scope)); err != nil {
		return nil, errors.Join(err, t.metrics.Shutdown(ctx))
	}
	if err := t.startTraces(ctx, o, res); err != nil {
		return nil, errors.Join(err, t.metrics.Shutdown(ctx))
	}
	return t, nil
}

func (t *T) startTraces(ctx context.Context, o Options, res *resource.Resource) error {
	topts, err := o.OTLP.traceOptions(ctx)
	if err != nil {
		return err
	}
	topts = append(topts, o.spans...)
	if len(topts) == 0 {
		return nil
	}
	t.traces = sdktrace.NewTracerProvider(append(topts, sdktrace.WithResource(res),
		sdktrace.WithIDGenerator(givenIDs{}), sdktrace.WithSampler(sdktrace.AlwaysSample()))...)
	t.tracer = t.traces.Tracer(scope)
	return nil
}

// MetricsHandler serves the Prometheus text format.
func (t *T) MetricsHandler() http.Handler {
	if t == nil {
		return http.NotFoundHandler()
	}
	return t.scrape
}

// Shutdown exports what is left and releases everything, within ctx.
func (t *T) Shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	var errs []error
	if t.traces != nil {
		errs = append(errs, t.traces.Shutdown(ctx))
	}
	if err := errors.Join(append(errs, t.metrics.Shutdown(ctx))...); err != nil {
		return fmt.Errorf("flushing telemetry: %w", err)
	}
	return nil
}

const exportTimeout = 10 * time.Second
