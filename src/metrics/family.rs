//! How metrics are declared: each concern's families are one `families!`, in which a metric is a line under its help.

use std::cell::RefCell;

use prometheus::core::{Atomic, Collector, Desc, GenericGaugeVec};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Described;

pub(super) const BATCH_BUCKETS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];
pub(super) const WORK_BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
pub(super) const AGE_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];

/// Where families are declared, with a list of them: a registry tells only those that have series.
pub(super) struct Declared {
    pub(super) registry: Registry,
    pub(super) list: RefCell<Vec<Described>>,
}

impl Declared {
    /// Adds a family. Its doc comment is the help, a line each.
    pub(super) fn family<F: Family>(&self, name: &str, help: &[&str], labels: &[&str], buckets: &[f64]) -> F {
        let help = help.concat();
        let family = F::make(Opts::new(name, help.trim()), labels, buckets)
            .expect("names, labels and buckets are constants that the unit tests check");
        self.registry
            .register(Box::new(family.clone()))
            .expect("each name is declared once: the unit tests create the whole set");
        self.list.borrow_mut().extend(described(&family));
        family
    }
}

fn described(family: &impl Collector) -> Vec<Described> {
    let kind = match family.collect().first().map(MetricFamily::get_field_type) {
        Some(MetricType::COUNTER) => "counter",
        Some(MetricType::HISTOGRAM) => "histogram",
        _ => "gauge",
    };
    let of = |desc: &&Desc| Described {
        name: desc.fq_name.clone().into(),
        kind,
        labels: desc.variable_labels.clone(),
        help: desc.help.clone().into(),
    };
    family.desc().iter().map(of).collect()
}

/// A kind of families.
pub(super) trait Family: Collector + Clone + Sized + 'static {
    /// A family without series. Only histograms have buckets.
    fn make(options: Opts, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self>;
}

macro_rules! without_buckets {
    ($($family:ty),+) => {
        $(impl Family for $family {
            fn make(options: Opts, labels: &[&str], _: &[f64]) -> prometheus::Result<Self> {
                Self::new(options, labels)
            }
        })+
    };
}

without_buckets!(IntCounterVec, CounterVec, IntGaugeVec, GaugeVec);

impl Family for HistogramVec {
    fn make(options: Opts, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::from(options).buckets(buckets.to_vec()), labels)
    }
}

/// Sets a series; without a value it goes away.
pub(super) fn set<P: Atomic>(family: &GenericGaugeVec<P>, labels: &[&str], value: Option<P::T>) {
    match value {
        Some(value) => family.with_label_values(labels).set(value),
        // One that was never there is away already.
        None => drop(family.remove_label_values(labels)),
    }
}

/// The families of a concern: a field each, whose doc comment is the metric's help, with its name, its labels and for a
/// histogram its buckets.
macro_rules! families {
    (
        $(
            $(#[doc = $help:literal])+
            $vis:vis $field:ident: $family:ty = $name:literal [$($label:literal),+] $($buckets:ident)?;
        )+
    ) => {
        #[derive(Debug)]
        pub(super) struct Families {
            $($vis $field: $family,)+
        }

        impl Families {
            pub(super) fn declare(declared: &$crate::metrics::family::Declared) -> Self {
                Self {
                    $($field: declared.family(
                        $name,
                        &[$($help),+],
                        &[$($label),+],
                        &[<&[f64]>::default() $(, $crate::metrics::family::$buckets)?].concat(),
                    ),)+
                }
            }
        }
    };
}

pub(super) use families;
