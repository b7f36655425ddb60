//! The adversarial list: shapes, values, options and memory layouts that have broken normalization kernels.

mod fusions;
mod hyperspheres;
mod layouts;
mod masks;
mod options;
mod parameters;
mod rotaries;
mod sandwiches;
mod shapes;
mod specs;
mod values;

use super::case::{ANY_SPEC, Case};
use crate::tensor::DType;

/// How many cases to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Some of each kind: seconds on a software adapter.
    Quick,
    /// All of them.
    Full,
}

use Effort::{Full, Quick};

/// The published list for a method, or for [`ANY_SPEC`].
pub fn cases(method: &str, dtype: DType, effort: Effort) -> Vec<Case> {
    let mut known = super::METHODS.iter().copied().chain([ANY_SPEC]);
    let Some(method) = known.find(|&known| known == method) else { return Vec::new() };
    let mut list = List { method, dtype, effort, cases: Vec::new() };
    if method == ANY_SPEC {
        specs::list(&mut list);
        hyperspheres::list(&mut list);
        return list.cases;
    }
    shapes::list(&mut list);
    values::list(&mut list);
    parameters::list(&mut list);
    layouts::list(&mut list);
    masks::list(&mut list);
    options::list(&mut list);
    fusions::list(&mut list);
    rotaries::list(&mut list);
    sandwiches::list(&mut list);
    list.cases
}

/// A list in the making.
struct List {
    method: &'static str,
    dtype: DType,
    effort: Effort,
    cases: Vec<Case>,
}

impl List {
    /// Adds a case of `rows` rows of `cols` elements, unless it belongs to a larger effort.
    fn add(
        &mut self,
        at: Effort,
        name: impl Into<String>,
        (rows, cols): (usize, usize),
        edit: impl Fn(&mut Case),
    ) {
        self.push(at, name, Case::matrix(self.method, self.dtype, rows, cols), edit);
    }

    /// As `add`, for an input of this shape.
    fn add_shape(&mut self, at: Effort, name: impl Into<String>, shape: &[usize], edit: impl Fn(&mut Case)) {
        self.push(at, name, Case::new(self.method, self.dtype, shape), edit);
    }

    fn push(&mut self, at: Effort, name: impl Into<String>, mut case: Case, edit: impl Fn(&mut Case)) {
        if at == Full && self.effort == Quick {
            return;
        }
        case.name = name.into();
        case.seed = self.cases.len() as u64 + 1;
        edit(&mut case);
        self.cases.push(case);
    }

    /// Whether numbers of this magnitude are normal numbers of the dtype.
    fn holds(&self, magnitude: f64) -> bool {
        match self.dtype {
            DType::F16 => (6.2e-5..=65504.0).contains(&magnitude),
            _ => (1.2e-38..=3.3e38).contains(&magnitude),
        }
    }

    /// Whether the method is one of these.
    fn is(&self, methods: &[&str]) -> bool {
        methods.contains(&self.method)
    }

    /// Whether the input is an image or a batch: channels on axis 1, weights that may vary along any axes.
    fn has_channels(&self) -> bool {
        self.is(&["batch_norm", "group_norm", "instance_norm", "layer_norm_2d"])
    }

    /// Whether the method normalizes the last axes, or is a function of each element.
    fn is_trailing(&self) -> bool {
        self.is(&["layer_norm", "rms_norm", "dyt", "eln"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_cases_of_each_dtype_with_names_of_their_own() {
        for method in super::super::METHODS.iter().chain([&ANY_SPEC]) {
            for dtype in DType::FLOATS {
                let (quick, full) = (cases(method, dtype, Quick), cases(method, dtype, Full));
                assert!(quick.len() > 30 && full.len() > quick.len(), "{method}: {}", quick.len());
                let mut names: Vec<_> = full.iter().map(|case| &case.name).collect();
                names.sort();
                for pair in names.windows(2) {
                    assert_ne!(pair[0], pair[1], "{method} {dtype}");
                }
            }
        }
        assert!(cases("no such method", DType::F32, Full).is_empty());
    }

    #[test]
    fn every_case_lowers() {
        for method in super::super::METHODS.iter().chain([&ANY_SPEC]) {
            for case in cases(method, DType::F32, Full) {
                let lowered = case.lower();
                assert!(lowered.is_ok(), "{method} {}: {}", case.name, lowered.unwrap_err());
            }
        }
    }
}
