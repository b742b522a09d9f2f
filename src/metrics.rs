//! Counters and gauges, and their Prometheus text form.
//!
//! One struct that is handed in: no global registry, no labels made at run time, so the number of
//! series is known when the binary is built. Single-threaded, hence `Cell`.

use std::cell::Cell;
use std::fmt::Write as _;

/// A value that only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.set(self.0.get().saturating_add(amount));
    }

    /// Shows what is counted elsewhere.
    pub fn show(&self, value: u64) {
        self.0.set(value);
    }

    /// What has been added up since the process began.
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(Cell<u64>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.set(self.0.get().saturating_add(amount));
    }

    /// Takes `amount` away.
    pub fn sub(&self, amount: u64) {
        debug_assert!(self.0.get() >= amount, "more is taken away than there is");
        self.0.set(self.0.get().saturating_sub(amount));
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

macro_rules! metrics {
    ($($kind:ident $field:ident $name:literal $help:literal;)+) => {
        /// Everything Moonlet counts.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: $kind,)+
        }

        impl Metrics {
            /// The Prometheus text exposition format, version 0.0.4.
            pub fn render(&self) -> String {
                let mut text = String::with_capacity(RENDER_BYTES);
                $(metric(&mut text, $name, stringify!($kind), $help, self.$field.value());)+
                text
            }
        }
    };
}

metrics! {
    Counter http_requests "moonlet_http_requests_total" "Requests answered on the read API.";
    Counter http_sent_bytes "moonlet_http_sent_bytes_total" "Body bytes sent on the read API.";
    Counter http_refused "moonlet_http_refused_total" "Connections dropped for a limit or a deadline.";
    Gauge http_connections "moonlet_http_connections" "Open connections on the read API.";
    Gauge http_sending "moonlet_http_sending" "Answers being sent on the read API.";
    Counter link_received_bytes "moonlet_link_received_bytes_total" "Bytes received from upstream registries, headers and TLS included.";
    Counter link_sent_bytes "moonlet_link_sent_bytes_total" "Bytes sent to upstream registries.";
    Counter link_connections "moonlet_link_connections_total" "Connections opened to upstream registries.";
    Gauge link_day_used_bytes "moonlet_link_day_used_bytes" "Bytes of the data plan spent today; 0 without day_max.";
    Gauge link_day_max_bytes "moonlet_link_day_max_bytes" "Bytes of the data plan for a day; 0 without day_max.";
    Gauge link_month_used_bytes "moonlet_link_month_used_bytes" "Bytes of the data plan spent this month; 0 without month_max.";
    Gauge link_month_max_bytes "moonlet_link_month_max_bytes" "Bytes of the data plan for a month; 0 without month_max.";
    Gauge link_window_open "moonlet_link_window_open" "1 while images may be fetched, 0 outside the time windows.";
    Counter fetch_body_bytes "moonlet_fetch_body_bytes_total" "Blob and manifest bytes taken from upstream bodies.";
    Counter fetch_repeated_bytes "moonlet_fetch_repeated_bytes_total" "Blob bytes fetched more than once.";
    Counter fetch_retries "moonlet_fetch_retries_total" "Requests to upstream registries that were tried again.";
    Counter fetch_digest_mismatches "moonlet_fetch_digest_mismatches_total" "Downloads refused for a wrong digest.";
    Counter pull_through_hits "moonlet_pull_through_hits_total" "Requests for what may be fetched on demand that were answered from what is held.";
    Counter pull_through_misses "moonlet_pull_through_misses_total" "Requests for what may be fetched on demand that were not.";
    Counter pull_through_stale "moonlet_pull_through_stale_total" "Tags served as they were held because their registry could not answer.";
    Counter pull_through_bytes "moonlet_pull_through_bytes_total" "Blob bytes fetched because a client asked for them.";
    Counter flash_programmed_bytes "moonlet_flash_programmed_bytes_total" "Bytes programmed on the flash device.";
    Counter flash_image_bytes "moonlet_flash_image_bytes_total" "Blob bytes acknowledged into the log.";
    Counter flash_copied_bytes "moonlet_flash_copied_bytes_total" "Bytes copied on flash to make room.";
    Counter flash_syncs "moonlet_flash_syncs_total" "Syncs of the flash device.";
    Counter flash_erases "moonlet_flash_erases_total" "Segments erased or recycled.";
    Counter flash_repaired_chunks "moonlet_flash_repaired_chunks_total" "Chunks that had decayed on flash and were fetched again.";
    Gauge flash_erases_max "moonlet_flash_erases_max" "Erases of the data segment that has had most, since the log was begun.";
    Gauge flash_erases_mean "moonlet_flash_erases_mean" "Erases of a data segment in the mean, since the log was begun.";
    Gauge flash_bad_segments "moonlet_flash_bad_segments" "Segments that are out of use.";
    Gauge flash_programmed_bytes_per_day "moonlet_flash_programmed_bytes_per_day" "Bytes programmed in a day at the recent rate; 0 before the first day is over.";
    Gauge flash_life_used_percent "moonlet_flash_life_used_percent" "Percent of its life that the device says is used at most; 0 where it says nothing.";
    Gauge scrub_checked_bytes "moonlet_scrub_checked_bytes" "Bytes of this pass that were read to find bit rot.";
    Gauge scrub_pass_bytes "moonlet_scrub_pass_bytes" "Bytes that this pass is to read.";
    Counter scrub_passes "moonlet_scrub_passes_total" "Passes over all that is held, to find bit rot.";
    Counter store_evicted_bytes "moonlet_store_evicted_bytes_total" "Bytes of blobs that no desired image needed and that were evicted for others.";
    Gauge store_cached_bytes "moonlet_store_cached_bytes" "Bytes of blobs that no desired image needs and that may be evicted.";
    Gauge store_corrupt_chunks "moonlet_store_corrupt_chunks" "Chunks that decayed on flash and are not served.";
    Counter store_checked_bytes "moonlet_store_checked_bytes_total" "Bytes compared with their hashes before they were sent.";
    Gauge store_size_max_bytes "moonlet_store_size_max_bytes" "Capacity of the blob log.";
    Gauge store_used_bytes "moonlet_store_used_bytes" "Bytes of the blob log in use.";
    Gauge store_blobs "moonlet_store_blobs" "Blobs held.";
    Gauge images_desired "moonlet_images_desired" "Images that should be held.";
    Gauge images_held "moonlet_images_held" "Desired images that are held whole.";
    Counter sync_runs "moonlet_sync_runs_total" "Reconciliations run.";
    Counter sync_failures "moonlet_sync_failures_total" "Reconciliations that did not converge.";
    Gauge sync_last_success_seconds "moonlet_sync_last_success_seconds" "When all images were last seen held, seconds since 1970.";
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let kind = kind.to_ascii_lowercase();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

/// Room for all series, so that rendering allocates once.
const RENDER_BYTES: usize = 13 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_prometheus_text() {
        let metrics = Metrics::default();
        metrics.http_requests.add(3);
        metrics.http_connections.add(2);
        metrics.http_connections.sub(1);
        let text = metrics.render();
        assert!(text.contains(
            "# TYPE moonlet_http_requests_total counter\nmoonlet_http_requests_total 3\n"
        ));
        assert!(
            text.contains("# TYPE moonlet_http_connections gauge\nmoonlet_http_connections 1\n")
        );
        assert!(text.len() < RENDER_BYTES);
    }
}
