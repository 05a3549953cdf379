//! Does ONNX Runtime accept this model, and what does it answer to a tensor? The only file that talks to `ort`.

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{TensorElementType, TensorRef, ValueType};

use crate::runtime::Runtime;

/// A model that cannot run, or a run that failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// ONNX Runtime could not take a session option.
    #[error("ONNX Runtime refused a session option")]
    Options(#[source] ort::Error),
    /// The bytes are no ONNX model that this runtime can run.
    #[error("ONNX Runtime refused the model")]
    Refused(#[source] ort::Error),
    /// The model does not have exactly one input and one output.
    #[error("the model has {inputs} inputs and {outputs} outputs, one of each is needed")]
    Arity {
        /// Inputs it has.
        inputs: usize,
        /// Outputs it has.
        outputs: usize,
    },
    /// The model's input is another than the manifest's.
    #[error("the model's input is {found}, the manifest needs f32 {expected:?}")]
    Input {
        /// Type and shape of the model's input.
        found: String,
        /// Shape that the manifest describes.
        expected: [usize; 4],
    },
    /// The session failed on a tensor.
    #[error("inference failed")]
    Run(#[source] ort::Error),
    /// The output is not one f32 tensor.
    #[error("the model's output is no f32 tensor")]
    Output(#[source] ort::Error),
}

/// One ONNX Runtime session for one model: one input image, one output tensor.
pub struct Engine {
    session: Session,
    input_shape: [usize; 4],
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("input_shape", &self.input_shape)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Builds the session from the bytes of an ONNX file.
    ///
    /// One thread that never spins: control code runs beside it, and a second thread costs up to twice the CPU for no
    /// gain under load.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn load(runtime: &Runtime, onnx: &[u8], input_shape: [usize; 4]) -> Result<Self, EngineError> {
        let mut builder = options(runtime).map_err(EngineError::Options)?;
        let session = builder.commit_from_memory(onnx).map_err(EngineError::Refused)?;
        let (inputs, outputs) = (session.inputs(), session.outputs());
        if inputs.len() != 1 || outputs.len() != 1 {
            return Err(EngineError::Arity {
                inputs: inputs.len(),
                outputs: outputs.len(),
            });
        }
        if !accepts(inputs[0].dtype(), input_shape) {
            return Err(EngineError::Input {
                found: format!("{:?}", inputs[0].dtype()),
                expected: input_shape,
            });
        }
        Ok(Self { session, input_shape })
    }

    /// Runs the model on one tensor of the input's shape, copies the output into `output` and returns its shape.
    ///
    /// # Errors
    /// See [`EngineError`]; `output` then holds nothing that may be used.
    pub fn run(&mut self, tensor: &[f32], output: &mut Vec<f32>) -> Result<Vec<usize>, EngineError> {
        let input = TensorRef::from_array_view((self.input_shape, tensor)).map_err(EngineError::Run)?;
        let answers = self.session.run(ort::inputs![input]).map_err(EngineError::Run)?;
        let (shape, values) = answers[0]
            .try_extract_tensor::<f32>()
            .map_err(EngineError::Output)?;
        output.clear();
        output.extend_from_slice(values);
        Ok(shape
            .iter()
            .map(|&edge| usize::try_from(edge).unwrap_or(0))
            .collect())
    }
}

fn options(runtime: &Runtime) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(runtime.environment())?;
    Ok(builder
        .with_optimization_level(GraphOptimizationLevel::Level3)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?)
}

/// True when the input takes f32 of this shape; a dynamic edge takes any size.
fn accepts(input: &ValueType, expected: [usize; 4]) -> bool {
    let ValueType::Tensor {
        ty: TensorElementType::Float32,
        shape,
        ..
    } = input
    else {
        return false;
    };
    shape.len() == expected.len()
        && shape
            .iter()
            .zip(expected)
            .all(|(&edge, wanted)| edge == -1 || usize::try_from(edge) == Ok(wanted))
}
