//! The extension module of the Python package `normkit`: functions on arrays of any library, without copies.
//!
//! `functions`, `fused`, `heads`, `hypersphere`, `quantized` and `sandwich` are what users call, `low` and `outliers` what
//! `normkit.torch` is made of. An
//! argument becomes an `array` (by NumPy's C
//! interface, DLPack's C functions or its capsules), a result a `fresh` array of the same library; `place` says on
//! which device a call runs, and `call` runs it while other Python threads go on.

mod arguments;
mod array;
mod call;
mod capsule;
mod config;
mod devices;
mod dlpack;
mod errors;
mod exchange;
mod export;
mod fresh;
mod functions;
mod fused;
mod heads;
mod hypersphere;
mod low;
mod low_running;
mod memory;
mod openmp;
mod outliers;
mod place;
mod quantized;
mod running;
mod sandwich;
mod seen;

/// The extension module.
#[pyo3::pymodule]
mod _normkit {
    #[pymodule_export]
    use super::devices::{backends, devices};
    #[pymodule_export]
    use super::functions::{
        batch_norm, dyt, group_norm, instance_norm, layer_norm, normalize, rms_norm, weight_norm,
    };
    #[pymodule_export]
    use super::fused::{
        add_layer_norm, add_rms_norm, gated_rms_norm, layer_norm_add, modulated_layer_norm,
        modulated_rms_norm, rms_norm_add,
    };
    #[pymodule_export]
    use super::heads::{qk_norm, qk_norm_rope};
    #[pymodule_export]
    use super::hypersphere::{Step, hypersphere_step};
    #[pymodule_export]
    use super::low::Norm;
    #[pymodule_export]
    use super::low_running::{
        batch_norm_frozen, batch_norm_frozen_backward, batch_norm_train, instance_norm_train,
    };
    #[pymodule_export]
    use super::outliers::{outlier_codes, outlier_values};
    #[pymodule_export]
    use super::quantized::{add_layer_norm_quant, add_rms_norm_quant, layer_norm_quant, rms_norm_quant};
    #[pymodule_export]
    use super::sandwich::{Both, layer_norm_add_layer_norm, rms_norm_add_rms_norm};

    /// What is no function.
    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        super::openmp::settle();
        pyo3::types::PyModuleMethods::add(module, "__version__", env!("CARGO_PKG_VERSION"))
    }
}
