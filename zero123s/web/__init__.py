"""`zero123s web`: a page to make meshes from; everything but `page.py` works without gradio."""
